"""Every key of a sweep file, as `ssntk sweep --schema` prints it."""

SCHEMA = """\
# A sweep towards a bifurcation. Keys are the Python arguments' names; those behind a # are optional, with their defaults.
towards = "saddle-node"         # or "hopf", "transcritical", "pitchfork"; for maps also "flip", "neimark-sacker"
                                # "fold", "LP", "HB", "PD" and "NS" are aliases
                                # for ReLU networks also "nonsmooth-fold", "boundary-hopf", "border-collision",
                                # "to-infinity", "degenerate-flip"
                                # of limit cycles "cycle-fold" ("LPC"), "period-doubling" ("PD" of flows), "torus" ("NS" of
                                # flows), "saddle-node on a cycle" ("SNIC"): without [probe], blocks, of and [integrator]
span = [-4.0, 4.0]              # (p0, p1): the branch is followed from p0 towards p1
distances = { start = 1e-1, stop = 1e-7, num = 32 }     # log-spaced |p - p_c|, or a list
# index = 0                     # which bifurcation of that kind, in branch order
# x0 = [0.0, 0.0]               # (n,) near the equilibrium at p0; default: Newton from zero, then a search
                                # of limit cycles: settles on the cycle at p0; default: the cycles born at a Hopf point
# u = [0.0]                     # (d,) constant input, added to the probe's
# of = "state"                  # or "readout"
# wrt = ["weight", "bias"]      # attributes of the model; default: all that it trains
# blocks = ["weight", "bias"]   # attributes to be measured by themselves too
# modes = 10                    # only so many eigenvalues of the trajectory kernel; default all
# scale = [1.0, 1.0]            # (n,) or a number: the metric of the states; default ones
# step = 0.05                   # longest continuation step
# factory = "package.module:make"   # instead of [model]: a function that returns a model, as of `ssntk check`, called with
#                               # an argument `key`, jax.random.key(seed), or `seed`; looked for beside this file too
# seed = 0                      # of factory

[model]                         # a CTRNN: random, with its seed
n_state = 32
n_input = 1
n_output = 1
seed = 7                        # jax.random.key(seed)
gain = 1.3                      # default 1.0
# tau = 1.0
# activation = "tanh"           # a function of jax.numpy or jax.nn
# form = "current"              # or "rate"
# weights = "file.npz"          # instead of n_state to seed: arrays named weight, input_weight, bias, input_bias,
#                               # readout_weight, readout_bias, gain, tau, as in CTRNN.from_weights; beside this file;
#                               # also .safetensors and what else ssntk.load_weights reads

[family]                        # exactly one of attribute, input, line
input = { direction = [1.0] }   # u = offset + p * direction, also with offset = [0.0]
# attribute = "gain"            # a scalar attribute set to p
# line = { bias = [1.0, 0.0] }  # attributes moved by p * direction; { seed = 1 } draws a direction from N(0, 1)

# [grid]                        # instead of towards, span, distances, index and step: every combination of these values
# gain = { start = 0.2, stop = 2.0, num = 19 }          # keys of [model], or arguments of factory: evenly spaced, or a list
# seed = [0, 1, 2]
# p = [0.0, 1.0]                # the parameter of [family], which a grid needs for p alone

# [approach]                    # instead of [family]: all parameters move, along the line to the nearest bifurcation that
#                               # ssntk.approach finds; p is the change of theta, towards and span follow, x0 is its x
# kind = "saddle-node"          # or "hopf"
# wrt = ["weight", "bias"]      # attributes that move; default: all that the model trains
# metric = { weight = 1.0 }     # what a change costs, positive: for each attribute a number or an array; default 1
# signs = { weight = 1 }        # 1, -1 or 0: entries that stay >= 0, stay <= 0, are free; default 0
# min_coefficient = 0.05        # of the quadratic term, 1 / (state time); default 0.05 / time scale
# omega_min = 0.05              # of a pair, rad per unit time; default 0.05 / time scale
# n_starts = 8
# seed = 0                      # jax.random.key(seed) draws the starts

[probe]
ts = { start = 0.0, stop = 200.0, num = 21 }            # evenly spaced, or a list
# us = [[0.0]]                  # (B, d) or (B, T, d); default: no input
# us = { amplitude = [[1e-5]] } # (B, d): amplitude * sin(frequency t + phase); frequency: default that of the bifurcation
# x0 = [0.0, 0.0]               # (n,) or (B, n); default: the point's fixed point

# [integrator]
# solver = "Tsit5"              # a solver of diffrax
# rtol = 1e-8
# atol = 1e-10
# dt = 0.1                      # fixed steps instead of adaptive ones
# max_steps = 16384
"""
