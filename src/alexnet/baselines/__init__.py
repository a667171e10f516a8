"""The methods before the network: hand-made features and a linear SVM (paper, tables 1 and 2)."""
