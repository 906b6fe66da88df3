"""Extraction and search on several machines with Ray (extra `distributed`), imported only here and only on use."""
