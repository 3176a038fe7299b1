"""Log-probabilities of given answers: rewards, comparisons and attributions."""
