"""Sends events to the webhooks of companies, as Standard Webhooks (standardwebhooks.com) describes it.

Here: which addresses a message may go to, one attempt, and the task that makes them. What is sent, and what became of
it, is in the database (sfu.store.deliveries, sfu.store.sending), so a server that is killed loses nothing.
Read addresses.py, then sender.py, then dispatcher.py.
"""
