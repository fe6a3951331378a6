"""What is read and proven: the log's entries and its tree, certificates, bundles, their words."""
