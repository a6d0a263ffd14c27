"""What a few labelled images a class are worth."""
