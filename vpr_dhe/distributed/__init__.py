"""Beyond one machine, with Ray (extra `distributed`): nothing else imports Ray, and this only when it is used."""
