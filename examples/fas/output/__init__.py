"""What a study leaves behind: ``pictures``."""
