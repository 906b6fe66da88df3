"""Options, callbacks, progress bars, messages and help that commands share."""
