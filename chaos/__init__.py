"""Fault injection into real processes, and an independent check of what became of the requests.

`python -m chaos --schedules N --seed S`: the real API, two real workers, a real Postgres and a real
Valkey live through N seeded schedules of faults and clients. The same seed gives the same schedule.
"""
