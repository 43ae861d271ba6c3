"""The commands of `mlmessages`, one file each."""
