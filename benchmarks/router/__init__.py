"""Replicas of a server behind a router: which request should go where? A simulation by discrete events."""
