"""What is done to a traced graph of ATen before it runs: constants folded, layouts moved, waits removed."""


def fold_constants(module) -> None:
    """Computes what depends on no input once and for all."""
    import torch

    def is_mutable(node):
        return node.op == "call_function" and getattr(node.target, "_schema", None) and node.target._schema.is_mutable

    known = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(module, node.target)
        elif node.op == "call_function" and all(source in known for source in node.all_input_nodes):
            if any(map(is_mutable, (node, *node.users))):
                continue
            arguments, named = torch.fx.map_arg((node.args, node.kwargs), known.get)
            value = node.target(*arguments, **named)
            if isinstance(value, torch.Tensor):
                known[node] = value
    for number, (node, value) in enumerate(known.items()):
        if node.op == "call_function" and any(user not in known for user in node.users):
            module.register_buffer(f"constant_{number}", value)
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.get_attr(f"constant_{number}"))
    module.graph.eliminate_dead_code()
    module.recompile()


_LAST, _SECOND = [0, 2, 3, 1], [0, 3, 1, 2]  # how a picture's axes are moved to put its channels there


def put_channels_second(module) -> None:
    """Moves the channels before what is between convolutions, not after it and back: PyTorch's order of axes.

    The order in memory stays. `torch.compile` lays gradients out anew where axes are moved back and forth: a step of
    ResNet-50, batch 256, took 68 ms of an H200's time, timm's 37.
    """
    import torch

    aten, graph = torch.ops.aten, module.graph
    pointwise = (aten.relu.default, aten.add.Tensor, aten._to_copy.default, aten.detach.default)
    second = {}  # by a node that has its channels last: the same with its channels second

    def also_last(node, new):
        with graph.inserting_after(new):
            last = graph.call_function(aten.permute.default, (new, _LAST))
        node.replace_all_uses_with(last)
        second[last] = new

    for node in list(graph.nodes):
        if node.op != "call_function" or not all(source in second for source in node.all_input_nodes):
            if node.target is aten.permute.default and node.args[1] == _LAST:
                second[node] = node.args[0]
            continue
        if node.target is aten.permute.default and node.args[1] == _SECOND:
            node.replace_all_uses_with(second[node.args[0]])
            continue
        arguments = torch.fx.map_arg(node.args, second.get)
        if node.target is aten.constant_pad_nd.default and list(node.args[1][:2]) == [0, 0]:
            arguments = (arguments[0], node.args[1][2:6], *arguments[2:])
        elif node.target not in pointwise or not node.all_input_nodes:
            continue
        with graph.inserting_before(node):
            new = graph.call_function(node.target, arguments, node.kwargs)
        also_last(node, new)
    graph.eliminate_dead_code()
    module.recompile()


def keep_rate_on_device(module) -> None:
    """Keeps the learning rate of Keras' SGD as a tensor: to read it from the device would wait for the whole step."""
    import torch

    aten, graph = torch.ops.aten, module.graph
    for node in graph.find_nodes(op="call_function", target=aten._foreach_add_.List):
        alpha = node.kwargs.get("alpha")
        if getattr(alpha, "target", None) is aten._local_scalar_dense.default:
            with graph.inserting_before(node):
                scaled = graph.call_function(aten._foreach_mul.Tensor, (node.args[1], alpha.args[0]))
            node.args, node.kwargs = (node.args[0], scaled), {}
            if not alpha.users:
                graph.erase_node(alpha)
    module.recompile()
