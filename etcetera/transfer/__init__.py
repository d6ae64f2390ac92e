"""The engine: from a directory to an archive in a store, and back.

In the order the bytes travel: ``scan`` a directory, write ``tar`` headers, compress frames
(``codec``, ``pack``), keep the ``index``, cut ``parts``, ``push``; ``pull`` fetches ranges,
inflates (``codec``, ``gunzip``), checks (``unpack``) and writes (``extract``).
"""
