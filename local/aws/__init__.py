"""The stand-in for AWS on one machine: the server, its interpreter of state machines, job, crawler
and readers."""
