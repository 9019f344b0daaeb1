"""What people look at: episodes, windows, coverage, the report. Never imports ``convert``; ``loader`` opens it on demand."""
