"""Capture: a training step of the user's own module as two graphs of ATen operators.

The first gives a batch's loss, gradients and buffers, the second the update. Both are pure functions of tensors: the
module is called through ``torch.func.functional_call`` and only traced, never changed, and PyTorch does the
differentiation.
Hyperparameters are inputs of the second, so that changing them changes no graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from stoker.data.trees import call_model
from stoker.engines.collection import collected_later
from stoker.engines.decompositions import trace
from stoker.engines.fidelity import CommonNoise, far, foreign, repeated_noise, undone
from stoker.engines.rates import RateLookedAtError, are_constant, as_inputs, keep_constant, known_code, rated
from stoker.engines.step import Step, one_number
from stoker.engines.turning import Turned
from stoker.engines.updates.averaging import average_weights
from stoker.engines.updates.clipping import clip_grad_norm
from stoker.engines.updates.protocol import UnsupportedOptimizerError, Update
from stoker.engines.updates.registry import update_for
from stoker.engines.updates.state import Cohort, read_state
from stoker.errors import LoweringError

__all__ = [
    "CaptureError",
    "Captured",
    "State",
    "capture",
    "idle_parameters",
    "in_half_precision",
    "refusal_of",
    "traced",
    "uncapturable",
]


class CaptureError(Exception):
    """A step cannot be captured; the text is a reason of one line for the user."""


@dataclass(frozen=True)
class State:
    """What a step changes, and what it needs besides, as tensors of the user's own objects.

    Attributes:
        parameters: What is updated, cohort by cohort.
        buffers: All of the model's.
        constants: Parameters that are not updated.
        rates: Of dropout layers by name, float64, 0-d; see :func:`stoker.engines.rates.rated`.
        update: The optimizer's.
        groups: Its hyperparameters.
        cohorts: Its state; see :class:`stoker.engines.updates.state.Cohort`.
        averages: Of the parameters, in their order; empty if they are not averaged.
    """

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    constants: dict[str, Tensor]
    rates: dict[str, Tensor]
    update: Update
    groups: tuple[Mapping[str, Any], ...]
    cohorts: tuple[Cohort, ...]
    averages: tuple[Tensor, ...]

    @classmethod
    def of(cls, step: Step, idle: frozenset[str] = frozenset()) -> State:
        """The state as it is now.

        Args:
            step: The step.
            idle: Parameters that get no gradient, which the optimizer passes over.

        Raises:
            CaptureError: The optimizer has no pure update.
        """
        named = dict(step.model.named_parameters())
        names = {id(parameter): name for name, parameter in named.items()}
        active = [p for name, p in named.items() if p.requires_grad and name not in idle]
        try:
            update = update_for(step.optimizer)
            cohorts = tuple(read_state(step.optimizer, update, active))
        except UnsupportedOptimizerError as error:
            raise CaptureError(str(error)) from error
        moving: dict[str, Tensor] = {
            names[id(parameter)]: parameter for cohort in cohorts for parameter in cohort.parameters
        }
        constants: dict[str, Tensor] = {name: parameter for name, parameter in named.items() if name not in moving}
        buffers = dict(step.model.named_buffers())
        averages: tuple[Tensor, ...] = ()
        if step.average is not None:
            trained = [name for name, parameter in named.items() if parameter.requires_grad]
            average_of = dict(zip(trained, step.average.tensors(), strict=True))
            averages = tuple(average_of[name] for name in moving)
        rates = {name: torch.tensor(module.p, dtype=torch.float64) for name, module in rated(step.model)}
        return cls(moving, buffers, constants, rates, update, tuple(step.optimizer.param_groups), cohorts, averages)

    @property
    def slots(self) -> list[Tensor]:
        """The optimizer's tensors, cohort by cohort, parameter by parameter."""
        return [slot for cohort in self.cohorts for slots in cohort.slots for slot in slots.values()]


@dataclass(frozen=True)
class Captured:
    """The two graphs; their placeholders and outputs are flat.

    Attributes:
        gradients: ``(parameters, buffers, constants, rates, inputs, targets) → (loss, gradients, buffers)``.
        update: ``(parameters, gradients, slots, scalars[, max_norm][, averages, weight]) → (parameters, slots,
            averages)``, of which some are turned.
        scalars: Of each cohort, the names of its scalars in order.
        turned: Which weights are turned in ``update``; in ``gradients`` none is.
        device: Where the step computes.
    """

    gradients: fx.GraphModule
    update: fx.GraphModule
    scalars: tuple[tuple[str, ...], ...]
    turned: Turned
    device: torch.device


def uncapturable(step: Step) -> str | None:
    """Why a step cannot be captured, as far as can be told without trying; ``None`` if nothing speaks against it."""
    if torch.is_autocast_enabled(step.device.type):
        return "an autocast around the training"  # a graph, traced within it, would be cast a second time
    if any(getattr(nn.modules.module, hooks, None) for hooks in _GLOBAL_HOOKS):
        return "a hook on all modules"
    if any(getattr(module, hooks, None) for one in step.criteria for module in one.modules() for hooks in _HOOKS):
        return "a hook on the criterion"
    for name, module in step.model.named_modules():
        if any(getattr(module, hooks, None) for hooks in _HOOKS):
            return f"a hook on {name or 'the model'}"
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
            return f"sparse gradients of {name or 'the model'}"
        if isinstance(module, torch.jit.ScriptModule):
            return f"{name or 'the model'} is scripted"
    known = {id(parameter) for parameter in step.model.parameters()}
    for parameter in step.trained:
        if id(parameter) not in known:
            return "the optimizer trains parameters that are not the model's"
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            return "a hook on a parameter"
    return _shared_memory(step.model)


def _shared_memory(model: nn.Module) -> str | None:
    """Which two of a model's tensors lie in the same memory: a write to one is a write to the other, in no graph."""
    spans = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + _bytes(tensor), name)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.layout == torch.strided and tensor.numel()
    )
    for (_, end, one), (begin, _, other) in itertools.pairwise(spans):
        if begin < end:
            return f"{one} and {other} share memory"
    return None


def _bytes(tensor: Tensor) -> int:
    """From the first element's begin to the last one's end."""
    if tensor.is_contiguous():
        return tensor.numel() * tensor.element_size()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{hooks}" for hooks in _HOOKS)


def refusal_of(error: Exception) -> str:
    """Why there is no program, in one line."""
    if isinstance(error, (CaptureError, LoweringError)):
        return str(error)
    return f"the program cannot be made ({_in_short(error)})"


def _in_short(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:200]}"


def idle_parameters(model: nn.Module) -> frozenset[str]:
    """Those that got no gradient in the step just made."""
    return frozenset(name for name, parameter in model.named_parameters() if parameter.grad is None)


def capture(step: Step, state: State, inputs: Any, targets: Any) -> Captured:
    """Trace a step for batches of this form.

    Args:
        step: Its model in the modes in which it shall train.
        state: As it is now; the graphs hold for other values as well.
        inputs: One batch's, of the shapes and dtypes that all will have.
        targets: Likewise.

    Raises:
        CaptureError: The step does something that cannot be traced, or that is in no graph.
    """
    with collected_later():
        captured, reason = traced(step, state, inputs, targets)
    if reason is not None:
        raise CaptureError(reason)
    return captured


def traced(step: Step, state: State, inputs: Any, targets: Any) -> tuple[Captured, str | None]:
    """The same, and in words what the step does besides that is in no graph, if anything.

    Args:
        step: See :func:`capture`.
        state: Likewise.
        inputs: Likewise.
        targets: Likewise.

    Raises:
        CaptureError: The step does something that cannot be traced.
    """
    empty = _scalars_of(state)
    try:
        gradients, reason = _gradients(step, state, inputs, targets)
        turned = Turned.of(gradients, state.cohorts)
        parameters = turned.turn(_plain(state.parameters).values())
        slots = iter(turned.turn_slots(slot.detach() for slot in state.slots))
        clip = [] if step.clip_norm is None else [torch.tensor(step.clip_norm)]
        update = trace(
            _update_function(state),
            parameters,
            [torch.zeros_like(parameter) for parameter in parameters],
            [[{name: next(slots) for name in names} for names in cohort.slots] for cohort in state.cohorts],
            empty,
            clip,
            turned.turn(average.detach() for average in state.averages) if state.averages else [],
            [torch.zeros((), dtype=torch.float64)] if state.averages else [],
        )
    except CaptureError:
        raise
    except Exception as error:  # whatever the user's module does that a trace cannot follow
        raise CaptureError(f"the step cannot be traced ({_in_short(error)})") from error
    return Captured(gradients, update, tuple(tuple(scalars) for scalars in empty), turned, step.device), reason


def _gradients(step: Step, state: State, inputs: Any, targets: Any) -> tuple[fx.GraphModule, str | None]:
    """The graph of the gradients, and in words what the step does besides, if anything.

    Dropout rates are inputs of it, unless somebody's code looks at one, or the graph is not what the step computes:
    then it is traced again with constants.
    """
    if state.rates and not are_constant(step.model):
        known = step.kind is not None and all(map(known_code, (step.model, *step.criteria)))
        try:
            graph, besides = _gradients_with(step, state, state.rates, inputs, targets)
            differs = None if besides else _differs_in_common_noise(step, state, graph, inputs, targets)
            if known or differs is None:
                return graph, besides or differs
        except RateLookedAtError:
            if known:  # trainings share its programs, whatever their rates
                raise
        keep_constant(step.model)
    graph, besides = _gradients_with(step, state, {}, inputs, targets)
    return graph, besides or _differs_in_common_noise(step, state, graph, inputs, targets)


def _gradients_with(
    step: Step, state: State, rates: Mapping[str, Tensor], inputs: Any, targets: Any
) -> tuple[fx.GraphModule, str | None]:
    """The graph with these rates as inputs, and what of the step cannot be in any."""
    modules = [module for one in (step.model, *step.criteria) for module in one.modules()]
    with undone(modules) as changed:
        graph = trace(
            _gradient_function(step, state, rates.keys()),
            _plain(state.parameters),
            _plain(state.buffers),
            _plain(state.constants),
            state.rates,
            inputs,
            targets,
        )
        changes = changed()
    return graph, changes.said or _outside(state, graph, changes.replaced)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in tensors.items()}


def _scalars_of(state: State) -> list[dict[str, Tensor]]:
    groups = [
        (cohort, state.update.scalars(_group(state, cohort), cohort.counts, [0.1])[0]) for cohort in state.cohorts
    ]
    return [{name: torch.zeros((), dtype=cohort.dtype) for name in scalars} for cohort, scalars in groups]


def _group(state: State, cohort: Cohort) -> Mapping[str, Any]:
    return state.groups[cohort.group]


class _Whole(nn.Module):
    """A model and what is asked of it, so that whatever reads the model's weights reads those of the call."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.model, self._step = step.model, step

    def forward(self, x: Any, y: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the buffers after it, whether they were written to or others were put in their place."""
        loss = one_number(self._step.objective(call_model(self.model, x), y))
        return loss, dict(self.model.named_buffers())


def _gradient_function(step: Step, state: State, rated: Collection[str]) -> Any:
    whole = _Whole(step)
    forms = {name: (buffer.shape, buffer.dtype) for name, buffer in state.buffers.items()}

    def loss_of(
        parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], constants: Mapping[str, Tensor], x: Any, y: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        own = {name: buffer.clone() for name, buffer in buffers.items()}  # written in place, and read afterwards
        tensors = {f"model.{name}": tensor for name, tensor in {**parameters, **constants, **own}.items()}
        # A cache of casts would hold tensors of a trace that is over.
        cast = torch.autocast(step.device.type, dtype=step.autocast, cache_enabled=False)
        with cast if step.autocast is not None else nullcontext():
            loss, after = torch.func.functional_call(whole, tensors, (x, y))
        if {name: (buffer.shape, buffer.dtype) for name, buffer in after.items()} != forms:
            raise CaptureError("a step changes the form of the model's buffers")
        return loss, {name: buffer.detach() for name, buffer in after.items()}

    def gradients(parameters: Any, buffers: Any, constants: Any, rates: Any, x: Any, y: Any) -> Any:
        with as_inputs(step.model, {name: rates[name] for name in rated}):
            found, (loss, own) = torch.func.grad_and_value(loss_of, has_aux=True)(parameters, buffers, constants, x, y)
        return loss, list(found.values()), list(own.values())

    return gradients


def _outside(state: State, graph: fx.GraphModule, replaced: Mapping[str, Tensor]) -> str | None:
    """What a step reads or writes past the model; ``None`` if nothing is found."""
    moved = written(graph, len(state.parameters), list(state.buffers))
    outside = foreign(graph, {**state.parameters, **{name: state.buffers[name] for name in moved}})
    if outside is not None:
        return f"the step reads {outside} past the model"
    outside = foreign(graph, replaced)
    return None if outside is None else f"a step changes {outside}"


def written(graph: fx.GraphModule, before: int, buffers: Sequence[str]) -> list[str]:
    """Those of the buffers that a step gives back as others than it was given.

    Args:
        graph: Whose placeholders are as many parameters, then the buffers; and whose outputs end with the buffers.
        before: How many parameters.
        buffers: Their names.
    """
    given = [node for node in graph.graph.nodes if node.op == "placeholder"][before : before + len(buffers)]
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    after = tree_leaves(output.args[0])[-len(buffers) :] if buffers else []
    return [name for name, one, other in zip(buffers, given, after, strict=True) if _copied(other) is not one]


def _copied(node: Any) -> Any:
    while isinstance(node, fx.Node) and str(node.target) in _COPIES:
        node = node.args[0]
    return node


_COPIES = {"aten.clone.default", "aten.alias.default", "aten.detach.default", "aten.lift_fresh_copy.default"}


def _differs_in_common_noise(step: Step, state: State, graph: fx.GraphModule, inputs: Any, targets: Any) -> str | None:
    """How a graph that draws is not what the step computes; ``None`` if nothing is found."""
    if not any(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in graph.graph.nodes):
        return None  # the engine compares the program's own updates
    cast = torch.autocast(step.device.type, dtype=step.autocast, cache_enabled=False)
    before = _plain(state.buffers)
    kept = {name: buffer.clone() for name, buffer in before.items()}
    modules = [module for one in (step.model, *step.criteria) for module in one.modules()]
    outside = [buffer for one in step.criteria for buffer in one.buffers()]
    kept_outside = [buffer.clone() for buffer in outside]
    numbers = torch.get_rng_state()

    def loss() -> Tensor:
        with cast if step.autocast is not None else nullcontext():
            return one_number(step.objective(call_model(step.model, inputs), targets))

    try:
        with undone(modules), torch.enable_grad():
            if not known_code(step.model) and repeated_noise(loss):
                return "a step seeds the noise that it draws"
            for name, buffer in before.items():
                buffer.copy_(kept[name])
        with undone(modules), torch.enable_grad(), CommonNoise():  # type: ignore[no-untyped-call]
            wanted = loss()
            gradients = torch.autograd.grad(wanted, list(state.parameters.values()), allow_unused=True)
            buffers = {name: buffer.detach().clone() for name, buffer in step.model.named_buffers()}
    finally:
        torch.set_rng_state(numbers)
        for name, buffer in before.items():
            buffer.copy_(kept[name])
        for buffer, values in zip(outside, kept_outside, strict=True):
            buffer.copy_(values)
    given = (_plain(state.parameters), kept, _plain(state.constants), state.rates, inputs, targets)
    plain = torch.autocast(step.device.type, enabled=False)  # what is cast within it is cast in the graph
    with torch.no_grad(), plain, CommonNoise():  # type: ignore[no-untyped-call]
        found, mine, after = fx.Interpreter(graph).run(*tree_leaves(given))
    half = in_half_precision(graph)
    if far(found.detach(), wanted.detach(), half=half):
        return f"the captured step's loss is {float(found):.6g}, not {float(wanted):.6g}"
    scale = max((float(one.norm()) for one in gradients if one is not None), default=0.0)
    for (name, parameter), one, other in zip(state.parameters.items(), mine, gradients, strict=True):
        if far(one, torch.zeros_like(parameter) if other is None else other, half=half, scale=scale):
            return f"the captured step moves {name} otherwise than the eager one"
    for (name, other), one in zip(buffers.items(), after, strict=True):
        if far(one, other, half=half):
            return f"the captured step leaves another {name} than the eager one"
    return None


def in_half_precision(graph: fx.GraphModule) -> bool:
    """Whether a graph computes in a dtype of 16 bits, as within autocast."""
    values = (node.meta.get("val") for node in graph.graph.nodes)
    return any(isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16) for value in values)


def _update_function(state: State) -> Any:
    signatures = [state.update.signature(_group(state, cohort)) for cohort in state.cohorts]
    sizes = [len(cohort.parameters) for cohort in state.cohorts]

    def update(
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        slots: Any,
        scalars: Any,
        max_norm: Sequence[Tensor],
        averages: Sequence[Tensor],
        weight: Sequence[Tensor],
    ) -> Any:
        for norm in max_norm:
            gradients, _ = clip_grad_norm(gradients, norm)
        after: list[Tensor] = []
        kept: list[Tensor] = []
        pairs = iter(zip(parameters, gradients, strict=True))
        for size, signature, its_slots, its_scalars in zip(sizes, signatures, slots, scalars, strict=True):
            for place in range(size):
                parameter, gradient = next(pairs)
                new, moved = state.update.apply(parameter, gradient, its_slots[place], its_scalars, signature)
                after.append(new)
                kept += [moved[name] for name in its_slots[place]]
        return after, kept, [average for one in weight for average in average_weights(list(averages), after, one)]

    return update
