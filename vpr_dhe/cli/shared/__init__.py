"""What commands share: groups of options, callbacks, progress bars, messages, help."""
