"""Fair comparisons of adapters: grids of runs, reports, experiments and the demo."""
