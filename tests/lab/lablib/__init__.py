"""Real PostgreSQL HA clusters on one machine, to look at and to break.

Each module knows one thing; a module uses only those above it in this list:

  base      errors, progress, deadlines, running programs
  model     what a lab is: names, addresses, folders, its record on disk
  net       namespaces, links, packet filters; code that runs inside a namespace
  proc      processes: start, find again, signal, make sure that none is left
  probe     what PostgreSQL, Patroni and etcd say
  settings  the configuration files of everything that runs in a lab
  up, down  build and remove
  faults    break (and what to expect), heal  repair
  report    status and list

Python's standard library only.
"""
