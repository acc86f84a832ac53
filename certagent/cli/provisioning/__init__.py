"""What `certagent vault setup` makes in Vault: described first, then printed or applied."""
