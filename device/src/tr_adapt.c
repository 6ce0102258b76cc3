/* tr_adapt.c - learning on the board: adapter files, the run of `adapt`, and the optimiser over the
 * factor vector. */
#include "tr_internal.h"
#include "tr_math.h"

enum { FACTORS, GRADIENTS, FIRST_MOMENT, SECOND_MOMENT };

/* ---- adapter files (FORMAT.md section 7) ---- */

uint32_t tr_adapter_bytes(const tr_model *model) {
    return (uint32_t)sizeof(tr_adapter_file) + 4 * model->adapter_floats;
}

static int factors_ok(const float *x, uint32_t count) {
    for (uint32_t k = 0; k < count; ++k) {
        if (!tr_factor_ok(x[k])) return 0;
    }
    return 1;
}

tr_status tr_adapter_check(const tr_model *model, const void *file, uint32_t bytes) {
    const tr_adapter_file *adapter = file;
    if (!model || !model->blob || !file) return TR_ERR_ARGUMENT;
    if ((uintptr_t)file % 16) return TR_ERR_ALIGNMENT;
    if (bytes < sizeof *adapter) return TR_ERR_TRUNCATED;
    if (memcmp(adapter->magic, "TADP", 4) != 0) return TR_ERR_MAGIC;
    if (adapter->major != TR_MAJOR || adapter->minor != TR_ADAPTER_MINOR) return TR_ERR_VERSION;
    if (bytes < adapter->total_bytes) return TR_ERR_TRUNCATED;
    if (bytes > adapter->total_bytes) return TR_ERR_HEADER;
    if (tr_crc32(0, (const uint8_t *)file + TR_CRC_START, bytes - TR_CRC_START) != adapter->crc32)
        return TR_ERR_CHECKSUM;
    if (memcmp(adapter->digest, model->digest, sizeof adapter->digest) != 0) return TR_ERR_MISMATCH;
    if (!model->adapter_floats || adapter->floats != model->adapter_floats) return TR_ERR_HEADER;
    if (bytes != tr_adapter_bytes(model) || adapter->reserved || adapter->steps >> 31)
        return TR_ERR_HEADER;
    if (!tr_finite(adapter->loss) || !factors_ok(adapter->factors, adapter->floats))
        return TR_ERR_VALUE;
    return TR_OK;
}

tr_status tr_adapter_attach(tr_session *session, const void *file, uint32_t bytes) {
    if (!session || !session->model) return TR_ERR_ARGUMENT;
    tr_status status = tr_adapter_check(session->model, file, bytes);
    if (status) return status;
    const tr_adapter_file *adapter = file;
    session->adapting = 0;
    session->position = 0;
    session->factors = adapter->factors;
    session->steps = adapter->steps;
    session->loss = adapter->loss;
    return TR_OK;
}

void tr_adapter_detach(tr_session *session) {
    session->adapting = 0;
    session->position = 0;
    session->factors = NULL;
    session->steps = 0;
    session->loss = 0.0f;
}

tr_status tr_adapter_export(const tr_session *session, void *out, uint32_t capacity,
                            uint32_t *bytes) {
    if (!session || !session->model || !out || !bytes) return TR_ERR_ARGUMENT;
    if (!session->factors) return TR_ERR_STATE;
    const tr_model *model = session->model;
    uint32_t total = tr_adapter_bytes(model);
    if (capacity < total) return TR_ERR_ARGUMENT;
    tr_adapter_file head;
    memset(&head, 0, sizeof head);
    memcpy(head.magic, "TADP", 4);
    head.major = TR_MAJOR;
    head.minor = TR_ADAPTER_MINOR;
    head.total_bytes = total;
    memcpy(head.digest, model->digest, sizeof head.digest);
    head.floats = model->adapter_floats;
    head.steps = session->steps;
    head.loss = session->loss;
    uint8_t *p = out;
    memcpy(p, &head, sizeof head);
    memcpy(p + sizeof head, session->factors, 4 * (size_t)model->adapter_floats);
    head.crc32 = tr_crc32(0, p + TR_CRC_START, total - TR_CRC_START);
    memcpy(p + offsetof(tr_adapter_file, crc32), &head.crc32, sizeof head.crc32);
    *bytes = total;
    return TR_OK;
}

/* ---- begin ---- */

tr_adapt_config tr_adapt_defaults(void) {
    tr_adapt_config config = {TR_ADAM, 5e-3f, 0.9f, 0.999f, 1e-8f, 0.0f, 0.0f, 0};
    return config;
}

static int config_ok(const tr_adapt_config *config) {
    const float values[] = {config->lr,  config->beta1,        config->beta2,
                            config->eps, config->weight_decay, config->clip};
    for (unsigned k = 0; k < sizeof values / sizeof values[0]; ++k) {
        if (!tr_finite(values[k]) || values[k] < 0.0f) return 0;
    }
    if (config->optimizer != TR_ADAM && config->optimizer != TR_SGD) return 0;
    if (config->optimizer == TR_ADAM && !(config->eps > 0.0f)) return 0;
    return config->lr > 0.0f && config->beta1 < 1.0f && config->beta2 < 1.0f;
}

/* Uniform in [-1, 1), multiples of 2^-23. */
static float uniform(uint64_t *state) {
    int32_t bits = (int32_t)(tr_splitmix64(state) >> 40);
    return (float)(bits - 0x800000) * 1.1920928955078125e-7f;
}

static void fresh_factors(const tr_model *model, float *factors, uint64_t seed) {
    memset(factors, 0, 4 * (size_t)model->adapter_floats);
    for (uint32_t k = 0; k < model->adapter_count; ++k) {
        const tr_adapter *adapter = tr_adapter_at(model, k);
        for (uint32_t n = adapter->a; n < adapter->b; ++n)
            factors[n] = uniform(&seed) * adapter->init_bound;
    }
}

tr_status tr_adapt_begin(tr_session *session, const tr_adapt_config *config) {
    if (!session || !session->model || !config) return TR_ERR_ARGUMENT;
    const tr_model *model = session->model;
    if (!TR_ADAPT || !model->adapt) return TR_ERR_NO_ADAPT;
    if (session->arena_bytes < model->adapt_arena) return TR_ERR_ARENA;
    if (!config_ok(config)) return TR_ERR_VALUE;
    float *factors = tr_state_block(session, FACTORS);
    size_t bytes = 4 * (size_t)model->adapter_floats;
    if (session->factors) {
        memmove(factors, session->factors, bytes);
    } else {
        fresh_factors(model, factors, config->seed);
        session->steps = 0;
        session->loss = 0.0f;
    }
    for (uint32_t block = GRADIENTS; block <= SECOND_MOMENT; ++block)
        memset(tr_state_block(session, block), 0, bytes);
    session->factors = factors;
    session->config = *config;
    session->beta1_power = session->beta2_power = 1.0f;
    session->adapting = 1;
    return TR_OK;
}

tr_status tr_adapt_set_lr(tr_session *session, float lr) {
    if (!session) return TR_ERR_ARGUMENT;
    if (!session->adapting) return TR_ERR_STATE;
    if (!tr_finite(lr) || !(lr > 0.0f)) return TR_ERR_VALUE;
    session->config.lr = lr;
    return TR_OK;
}

/* ---- step ---- */

tr_status tr_adapt_step(tr_session *session, const int16_t *input, uint32_t count, uint32_t label,
                        float *loss) {
    if (!session || !session->model || !input) return TR_ERR_ARGUMENT;
    if (!TR_ADAPT || !session->adapting) return TR_ERR_STATE;
    const tr_model *model = session->model;
    const tr_program *program = (const tr_program *)(const void *)model->adapt;
    if (count != model->channels * model->length || label >= model->outputs) return TR_ERR_ARGUMENT;
    uint32_t steps = session->steps;
    float last_loss = session->loss;
    session->label = label;
    memmove(session->arena + 4 * program->input, input, 2 * (size_t)count);
    if (program->flags & TR_PROGRAM_AFTER_INFER)
        tr_program_run(session, (const tr_program *)(const void *)model->infer, model->infer_count);
    tr_program_run(session, program, model->adapt_count);
    if (loss) *loss = session->loss;
    if (session->steps != steps) return TR_OK;
    session->loss = last_loss;
    return TR_ERR_VALUE;
}

/* Multiplier for the gradients: 1, or clip / norm where the norm is larger; negative when the norm
 * is not finite. */
static float clip_factor(const float *gradients, uint32_t count, float clip) {
    float sum = 0.0f;
    for (uint32_t k = 0; k < count; ++k) sum += gradients[k] * gradients[k];
    if (!tr_finite(sum)) return -1.0f;
    float norm = tr_sqrt(sum);
    return clip > 0.0f && norm > clip ? clip / norm : 1.0f;
}

/* OPTIMIZE. Adam (Kingma and Ba 2014, arXiv 1412.6980) with decoupled weight decay (Loshchilov and
 * Hutter 2017, arXiv 1711.05101), or SGD with momentum: m = beta1 m + g, theta -= lr m. Without a
 * finite loss and gradient nothing moves and no step is counted. */
void tr_optimize(const tr_call *call) {
    tr_session *session = call->session;
    const tr_adapt_config *config = &session->config;
    uint32_t count = session->model->adapter_floats;
    float *theta = tr_state_block(session, FACTORS), *g = tr_state_block(session, GRADIENTS);
    float *m = tr_state_block(session, FIRST_MOMENT), *v = tr_state_block(session, SECOND_MOMENT);
    float scale = clip_factor(g, count, config->clip);
    if (tr_finite(session->loss) && scale >= 0.0f) {
        session->beta1_power *= config->beta1;
        session->beta2_power *= config->beta2;
        float correct1 = 1.0f - session->beta1_power, correct2 = 1.0f - session->beta2_power;
        float keep = 1.0f - config->lr * config->weight_decay;
        for (uint32_t k = 0; k < count; ++k) {
            float gradient = g[k] * scale, move;
            if (config->optimizer == TR_ADAM) {
                m[k] = config->beta1 * m[k] + (1.0f - config->beta1) * gradient;
                v[k] = config->beta2 * v[k] + (1.0f - config->beta2) * (gradient * gradient);
                move = m[k] / correct1 / (tr_sqrt(v[k] / correct2) + config->eps);
            } else {
                m[k] = config->beta1 * m[k] + gradient;
                move = m[k];
            }
            float next = theta[k] * keep - config->lr * move;
            if (tr_factor_ok(next)) theta[k] = next;
        }
        ++session->steps;
    }
    memset(g, 0, 4 * (size_t)count);
}
