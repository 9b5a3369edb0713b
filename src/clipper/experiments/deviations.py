"""What a reproduction does otherwise than the paper, or had to choose where the paper is silent."""

from __future__ import annotations

TABLE1_DEVIATIONS = (
    "Environments: -v5 on MuJoCo 3 or newer in place of -v1 on MuJoCo 1.3. Reacher and "
    "InvertedDoublePendulum show fewer numbers; Hopper, Walker2d, InvertedPendulum and "
    "InvertedDoublePendulum pay nothing for surviving on the step that ends in a fall; Walker2d has "
    "another foot friction; Reacher pays for the distance after the step. Returns in raw units are "
    "not comparable; the normalised scores are each study's own.",
    "Scale: the paper publishes neither its random scores nor its best ones. Random is here the mean of "
    "100 episodes of the policy that training starts from, measured; best is the best single run of the "
    "eleven settings (score_to_mean in table.csv: the best setting's mean instead).",
    "Observations are normalised by a running mean and standard deviation and clipped at 10; the paper "
    "does not speak of it (--with-raw adds clip 0.2 without).",
    "Rewards are divided by the running standard deviation of the discounted return and clipped at 10; "
    "the paper does not speak of it (--with-raw: without). Scores are in raw rewards.",
    "Advantages are normalised over each minibatch; the paper does not speak of it. It fixes what a "
    "beta of the fixed KL penalty weighs against.",
    "Gradients are clipped to a joint norm of 0.5; the paper does not speak of it. It joins the step of "
    "the policy with that of the critic, so that the value coefficient (1 here) matters a little.",
    "Time limits are bootstrapped from the value of the true last observation; the paper's text does "
    "not tell a time limit from an end.",
    "Adam: epsilon 1e-5, betas 0.9 and 0.999; table 3 gives the step size alone, 3e-4, taken as "
    "constant.",
    "One environment, so that a rollout is the horizon T = 2048; the number of actors is not stated.",
    "Weights start orthogonal (gains sqrt 2, policy head 0.01, value head 1), log standard deviations "
    "at 0; the paper does not say.",
    "Actions are scaled from [-1, 1] to the environment's bounds and clipped there. All tasks but "
    "InvertedPendulum have the bounds -1 and 1; its first actions have a standard deviation of 3 in "
    "place of 1.",
    "Runs end with the rollout that passes 1,000,000 steps: 1,001,472.",
    "Intervals: the paper prints none.",
)
"""Of Table 1: differences first that surely move returns."""

FIGURE3_DEVIATIONS = (
    "The printed numbers are readings of the figure by others, about as good as a pixel; nobody has "
    "read CEM and the vanilla policy gradient. Where two have read a curve, both are given.",
    "Environments: -v5 in place of -v1, as in table1; returns on all but HalfCheetah and Swimmer are in "
    "other units or of another task.",
    "The paper gives no hyperparameters for A2C, TRPO, CEM and the vanilla policy gradient. Here they "
    "have Clipper's presets, all with the discount 0.99.",
    "Seeds: the paper does not say how many runs a curve is the mean of; here 3 (smoke: 1).",
    "PPO, A2C, TRPO and the vanilla gradient normalise observations and scale rewards, and CEM "
    "normalises observations, as their presets say; the paper does not speak of it.",
    "CEM's curve is the mean return of the candidates it tried, not of the mean of its distribution.",
    "What is said of PPO's clip 0.2 under table1 holds here too.",
)
"""Of Figure 3."""

TABLE2_DEVIATIONS = (
    "Games: the emulator of ale-py (ALE 0.10 or newer) in place of that of 2017; ids -v5 with "
    "repeat_action_probability 0 and Clipper's preprocessing: 4 frames a step, the larger of the last "
    "two, 84 x 84 grey by area means, 4 steps stacked, 1 to 30 frames of doing nothing, 108,000 frames "
    "at most. FIRE is not pressed for the agent.",
    "A lost life is an end for the learner, and the game goes on: no reset and no idle frame. Returns "
    "are raw and of whole games.",
    "PPO: table 5 of the paper (8 actors, 128 steps, 3 epochs of 256, step size and clip range annealed "
    "to 0 over the run at hand, c1 = 1 of (V - target)^2, which is vf_coef 2 here, c2 = 0.01).",
    "The paper says that A2C and ACER were tuned and not how. A2C has RL Baselines3 Zoo's settings (16 "
    "environments, 5 steps, RMSprop 7e-4 annealed); ACER those of Wang et al. 2016, but a memory of "
    "1,000 steps of each of 16 environments (they: 50,000, which would be 45 GB here).",
    "Network: that of Mnih et al. 2015, 32, 64 and 64 filters and 512 units; the paper names that of "
    "Mnih et al. 2016 (A3C), which has 16 and 32 filters and 256 units.",
    "Orthogonal initial weights, advantages normalised over each minibatch, gradients clipped to a norm "
    "of 0.5 (ACER 10), Adam with epsilon 1e-5: the paper does not speak of them.",
    "Budget: shorter runs than 10 M steps are no reproduction, and win other games.",
)
"""Of Table 2."""
