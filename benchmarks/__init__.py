"""What etcetera costs, measured."""
