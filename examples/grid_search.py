"""scikit-learn's grid search on the cluster, by joblib: each fit runs wherever a slot is free.

    python examples/grid_search.py

It needs scikit-learn here and on the nodes (pip install scikit-learn). `import p2premap.joblib` is what registers the
backend.
"""

import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import p2premap.joblib  # noqa: F401  (registers the backend "p2premap")

if __name__ == "__main__":
    images, digits = load_digits(n_class=5, return_X_y=True)
    search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.0001, 0.001, 0.01]}, cv=3, n_jobs=-1)
    with joblib.parallel_config("p2premap"):
        search.fit(images, digits)
    print(f"{len(search.cv_results_['params'])} settings tried; best {search.best_params_}: {search.best_score_:.4f}")
