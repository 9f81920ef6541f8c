"""The run folder and the run record, which all commands share."""
