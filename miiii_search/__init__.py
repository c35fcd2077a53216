"""Hyperparameter search for grokking research.

    import miiii_search as ms

    run = ms.train(ms.Experiment(p=31, task="nanda"), ms.Hyperparameters(d_model=128))
    study = ms.create_study("sqlite:///grok.db", ms.presets["demo"], name="demo")

Each name is imported when it is first used, so that `import miiii_search` is fast and does not import JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
