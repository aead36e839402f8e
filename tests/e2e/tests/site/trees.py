"""Gradient-boosted trees that try to tell two servers apart by their answers.

Reads lines of a label (0 the gateway, 1 nginx, 2 nginx again) and features. Prints the mean AUC of
five folds of 0 against 1, and of 1 against 2, each as its distance from chance plus one half: a
classifier that is always wrong would tell them apart as well.
"""

import sys

import numpy
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score

rows = numpy.loadtxt(sys.argv[1], delimiter=",")


def auc(one, other):
    chosen = rows[(rows[:, 0] == one) | (rows[:, 0] == other)]
    folds = StratifiedKFold(n_splits=5, shuffle=True, random_state=1)
    trees = GradientBoostingClassifier(random_state=1)
    scores = cross_val_score(trees, chosen[:, 1:], chosen[:, 0] == one, cv=folds, scoring="roc_auc")
    return 0.5 + abs(scores.mean() - 0.5)


print(f"{auc(0, 1):.4f} {auc(1, 2):.4f}")
