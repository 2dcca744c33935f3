"""The fleet in virtual time: the production scheduler on any number of replicas behind a balancer.

`fleet` is the heart. A `Machine` says what each stage costs, a `Traffic` who asks for what and when, a `Router`
which replica gets it, a `Replica` is the engine's loop without tensors.
"""
