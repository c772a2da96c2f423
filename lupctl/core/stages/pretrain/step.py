"""One step of pre-training, whatever the method."""

import torch
from torch import Tensor

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.stages.pretrain.setup import Setup, Trained
from lupctl.core.training.engine.clipping import clip_gradients
from lupctl.core.training.engine.groups import set_rates
from lupctl.core.training.engine.stopwatch import Clock, untimed
from lupctl.core.training.loading.loaders import Batch
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.views.pixels import make_views


def take_step(
    recipe: PretrainRecipe, setup: Setup, trained: Trained, batch: Batch, now: Now, *, clock: Clock = untimed
) -> dict[str, Tensor]:
    """Make the views of a batch, learn from them, and update the student and what follows it.

    Args:
        recipe: for its clipping.
        setup: how views are made, and the precision.
        trained: modified.
        batch: on the device.
        now: the numbers of this step.
        clock: measures the parts of the step.

    Returns:
        scalars to log, `loss` among them.
    """
    with clock("transform"):
        views = make_views(setup.views, batch.pixels, batch.views)
    label, truth = (None if known is None else known[batch.rows] for known in (trained.label, trained.truth))
    given = Given(views, keys=batch.keys, label=label, truth=truth)
    return learn_from(given, recipe, trained, now, precision=setup.precision, clock=clock)


def learn_from(
    given: Given,
    recipe: PretrainRecipe,
    trained: Trained,
    now: Now,
    *,
    precision: torch.dtype,
    clock: Clock = untimed,
) -> dict[str, Tensor]:
    """The step after its views; see `take_step`.

    Args:
        given: views and labels of this process's share.
        recipe, trained, now, clock: as there.
        precision: of the forward passes.
    """
    method, optimizer = trained.method, trained.optimizer
    set_rates(optimizer, rate=trained.curves.rate, step=now.step, decay=now.decay)
    scalars = method.learn(given, now, trained.gradients, precision=precision, clock=clock)
    with clock("optimizer"):
        clip_gradients(method.student.parameters(), recipe.optim.clip, scope=recipe.optim.clip_scope)
        for parameter in method.held(now):
            parameter.grad = None
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.follow(now)
    return scalars
