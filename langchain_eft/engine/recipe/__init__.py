"""Which models a formula adds up, and with which weights."""
