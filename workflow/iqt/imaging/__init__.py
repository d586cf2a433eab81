"""What a scan from outside must be like, how it is turned and resampled, and where its brain is: for every stage that
reads a user's own files."""
