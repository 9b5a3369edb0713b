from clipper.experiments.plot import find_runs, plot_run, plot_runs, read_curve  # noqa: F401
