"""Event sinks: bindings, rules, the order in which they fire, and what becomes of what they return."""
