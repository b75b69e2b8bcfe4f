"""The benchmarks' asking side: it starts the peers, has them measure in turns, and says what came of it.

`question` reads what is to be asked; `runner` asks, with a process for each `peer`; `record` is what was measured, raw;
`figures` makes medians, intervals and verdicts of it; `tables`, `results` and `charts` show them; `goals` and `compare`
hold them against limits and against an earlier run. `command` puts all of it together.
"""
