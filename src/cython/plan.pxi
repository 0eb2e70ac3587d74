# A plan as the core reads it, and what it says of its net. Included by core.pyx.

cdef int _fill_shape(efl_shape *target, shape) except -1:
    if len(shape) > EFL_MAX_DIMS:
        raise ModelError(f"plan: a shape of {len(shape)} axes, at most {EFL_MAX_DIMS} are known: simplify the model")
    target.ndim = len(shape)
    for i, dim in enumerate(shape):
        target.dim[i] = dim
    return 0


cdef int _fill_node(efl_node *target, node) except -1:
    name = node.op.encode()
    limits = (EFL_MAX_INPUTS, EFL_MAX_PARAMS, EFL_MAX_INTS, EFL_MAX_FLOATS)
    counts = (len(node.inputs), len(node.params), len(node.ints), len(node.floats))
    if len(name) >= 32 or any(count > limit for count, limit in zip(counts, limits)):
        raise ModelError(f"plan: node {node.op[:32]!r} has too long a name or list: simplify the model")
    memcpy(target.op, <const char *>name, len(name))
    target.num_inputs, target.num_params, target.num_ints, target.num_floats = counts
    for i, value in enumerate(node.inputs):
        target.inputs[i] = value
    for i, value in enumerate(node.params):
        target.params[i] = value
    for i, value in enumerate(node.ints):
        target.ints[i] = value
    for i, number in enumerate(node.floats):
        target.floats[i] = number
    return 0


cdef class _Plan:
    """A plan as the core reads it, and the memory that this points into."""

    cdef efl_plan c
    cdef object memory

    def __cinit__(self, plan):
        node_memory = bytearray(sizeof(efl_node) * len(plan.nodes))
        param_memory = bytearray(sizeof(efl_param) * len(plan.params))
        loss = plan.loss.encode()
        heads = plan.losses or []
        if len(heads) > EFL_MAX_LOSSES:
            raise ModelError(f"plan: {len(heads)} losses, at most {EFL_MAX_LOSSES} are known: simplify the model")
        loss_memory = bytearray(sizeof(efl_plan_loss) * len(heads))
        names = [head.loss.encode() for head in heads]
        cdef efl_plan_loss *losses = <efl_plan_loss *><char *>loss_memory
        cdef efl_node *nodes = <efl_node *><char *>node_memory
        cdef efl_param *params = <efl_param *><char *>param_memory
        try:
            _fill_shape(&self.c.input, plan.input_shape)
            for i, node in enumerate(plan.nodes):
                _fill_node(&nodes[<int64_t>i], node)
            for i, param in enumerate(plan.params):
                _fill_shape(&params[<int64_t>i].shape, param.shape)
                params[<int64_t>i].trainable = param.trainable
            for i, head in enumerate(heads):
                losses[<int64_t>i] = efl_plan_loss(names[i], head.input, head.weight)
            self.c.loss_input, self.c.output = plan.loss_input, plan.output
        except OverflowError:
            raise ModelError("plan: a number is too large: compile the plan again from its ONNX file") from None
        self.c.num_nodes, self.c.num_params = len(plan.nodes), len(plan.params)
        self.c.nodes, self.c.params, self.c.loss = nodes, params, loss
        self.c.num_losses, self.c.losses = len(heads), losses
        self.memory = node_memory, param_memory, loss, loss_memory, names


def plan_flops(plan) -> float:
    """Floating-point operations of one sample on its way from the input to the loss."""
    cdef _Plan compiled = _Plan(plan)
    cdef efl_error error
    cdef double flops
    if efl_plan_flops(&compiled.c, &flops, &error) != EFL_OK:
        raise _failure(&error)
    return flops


def plan_needs(plan, int64_t batch) -> tuple:
    """(bytes of a Net's arena, the least that it can be limited to, whether training batches must be in it whole),
    without having them."""
    cdef _Plan compiled = _Plan(plan)
    cdef efl_error error
    cdef efl_needs needs
    if efl_plan_needs(&compiled.c, batch, &needs, &error) != EFL_OK:
        raise _failure(&error)
    return needs.arena_bytes, needs.least_bytes, bool(needs.mixes_samples)
