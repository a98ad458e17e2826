"""What tests share: clusters to talk to, objects to put into them, the record to judge by."""
