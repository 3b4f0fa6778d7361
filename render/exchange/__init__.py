"""Other formats: datasets that become stores, and stores that become datasets."""
