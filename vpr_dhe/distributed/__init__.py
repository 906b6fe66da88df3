"""Work on several machines with Ray (extra `distributed`), which only this package imports, and only when used."""
