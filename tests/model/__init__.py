"""SY-01: two homes and one repository, driven at random beside a model of two dictionaries.

What the model says of a dataset is its content; everything that etcetera answers, lists and leaves
on the disk is compared with it after each step. Some steps are killed half-way: then the content
has to be the one before or the one after, and the next command has to work.
"""
