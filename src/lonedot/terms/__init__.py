"""The field's nouns as frozen values. Nothing here does I/O or knows another room."""
