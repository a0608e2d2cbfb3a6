"""The recipe of the shipped reference model: data, synthetic speech, training and evaluation."""
