"""The values of every site as further outputs of a program that has been lowered already.

What runs a site is left as it is: bitvox's operators stand between delegates, so that their inputs and
outputs are values of the program, and so are those of a delegated site that begins and ends its delegate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export.graph_signature import OutputKind, OutputSpec, TensorArgument

from bitvox.exporters.executorch.graph import WEIGHT_NAME, Exposed

_WEIGHTED = ("conv", "linear")

_Values = tuple[torch.fx.Node, torch.fx.Node, str]


def hand_out(program: torch.export.ExportedProgram, sites: Sequence[int]) -> dict[int, Exposed] | None:
    """Add input and output of those sites to the outputs, in place; None where one is inside a delegate."""
    found: dict[int, _Values] = {}
    looked_up: dict[int, tuple[torch.fx.Node, torch.fx.Node]] = {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is torch.ops.higher_order.executorch_call_delegate:
            found.update(_delegated(program, node))
        elif "bitvox" in str(node.target):
            index = _site_of(program, node.args[1])
            if index is not None and "lookup" in str(node.target):
                looked_up[index] = (node.args[0], node)
            elif index is not None:
                activation = next((argument for argument in node.args if isinstance(argument, str)), "none")
                found[index] = (node.args[0], node, activation)
    if found.keys() != set(sites):
        return None
    values = [node for index in sites for node in (*found[index][:2], *looked_up.get(index, ()))]
    output = program.graph.output_node()
    own = list(output.args[0])
    handed = list(dict.fromkeys([*own, *values]))
    for node in handed[len(own) :]:
        specification = OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(name=node.name), target=None)
        program.graph_signature.output_specs.append(specification)
    output.args = (tuple(handed),)
    output.meta["val"] = tuple(node.meta["val"] for node in handed)
    program.graph_module.recompile()
    # What goes back to buffers comes first, and no caller sees it.
    hidden = len(program.graph_signature.buffers_to_mutate)
    place = {node: position - hidden for position, node in enumerate(handed)}
    return {
        index: Exposed(
            place[found[index][0]],
            place[found[index][1]],
            found[index][2],
            (place[looked_up[index][0]], place[looked_up[index][1]]) if index in looked_up else None,
        )
        for index in sites
    }


def _delegated(program: torch.export.ExportedProgram, call: torch.fx.Node) -> dict[int, _Values]:
    """Sites of a delegate whose input and output are the delegate's own."""
    name = call.args[0]
    assert isinstance(name, torch.fx.Node) and isinstance(name.target, str)
    inside = getattr(program.graph_module, name.target).original_module
    results = inside.graph.output_node().args[0]
    given = dict(zip(_user_inputs(inside), call.args[1:], strict=True))
    found: dict[int, _Values] = {}
    for node in inside.graph.nodes:
        if node.op != "call_function" or not any(word in str(node.target) for word in _WEIGHTED):
            continue
        index = _site_of(inside, node.args[1])
        source = given.get(getattr(node.args[0], "name", ""))
        if index is None or source is None or node not in results:
            continue
        position = list(results).index(node)
        handed = [user for user in call.users if user.args[1] == position]
        assert isinstance(source, torch.fx.Node)
        if handed:
            found[index] = (source, handed[0], "none")
    return found


def _user_inputs(program: Any) -> list[str]:
    return list(program.graph_signature.user_inputs)


def _site_of(program: Any, weight: Any) -> int | None:
    """The site whose weight a call is given, if it is one's, of a module or of one inside it."""
    name = program.graph_signature.inputs_to_buffers.get(getattr(weight, "name", ""), "").rpartition(".")[2]
    return int(name.removeprefix(WEIGHT_NAME)) if name.startswith(WEIGHT_NAME) else None
