"""Messages as octets: content, header view, edits, ledger, guard, reports. No sockets here, and no SMTP."""
