"""OmniDash: a dashboard for people who operate OmniDaemon."""

__version__ = "0.1.0"
