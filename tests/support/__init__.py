"""What tests share: servers as processes and in this one, clients, databases, bad networks."""
