"""The outbound shell: routes, pools of connections to next hops, attempts, and what is reported back.

It drives `protocol.client` and holds no SMTP rules of its own. Nothing here writes content between the 354 and its
reply but `message.encode.DataEncoder`.
"""
