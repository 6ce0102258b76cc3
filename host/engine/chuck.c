/* chuck.c - Chuck, an Adam that watches its own progress: the loss and the norm of each gradient
 * damp or push the steps, long rest stirs or slows them (after the optimiser of the same name in
 * ariannamethod/notorch). Levels 1, 3 and 5 look at the loss, 2 and 4 at one parameter each. */
#include "internal.h"
#include "kernels.h"

/* The last values of a series, the newest at `next - 1`. */
typedef struct {
    double values[TE_CHUCK_MAX_WINDOW];
    int64_t count, next;
} te_chuck_window;

/* A factor that follows the trend of a series. */
typedef struct {
    te_chuck_window window;
    double trend, lambda;
} te_chuck_follower;

/* Only doubles and int64, so that all of it is a row of 8-byte words: see te_chuck_state. */
typedef struct {
    te_chuck_follower norms;
    double norm;
    int64_t quiet, frozen; /* steps in a row with a small gradient; whether given up */
} te_chuck_watch;

typedef struct {
    te_chuck_settings set;
    te_chuck_follower losses; /* of the loss's running mean */
    double mean, slow_mean, best, noise, scale;
    int64_t seen, still, misses;
} te_chuck_memory;

void te_chuck_defaults(te_chuck_settings *settings) {
    if (!settings) return;
    *settings = (te_chuck_settings){.beta1 = 0.9,
                                    .beta2 = 0.999,
                                    .eps = 1e-8,
                                    .window = 16,
                                    .damp = 0.97,
                                    .push = 1.03,
                                    .lowest = 0.3,
                                    .highest = 2.0,
                                    .revert = 0.999,
                                    .loss_decay = 0.99,
                                    .loss_threshold = 0.02,
                                    .norm_threshold = 0.05,
                                    .still_threshold = 0.001,
                                    .still_steps = 8,
                                    .noise = 0.001,
                                    .noise_decay = 0.9,
                                    .freeze_norm = 0.01,
                                    .freeze_steps = 8,
                                    .slow_decay = 0.999,
                                    .slow_interval = 1000,
                                    .slow_margin = 0.001,
                                    .patience = 3,
                                    .scale_down = 0.5,
                                    .scale_floor = 0.05,
                                    .scale_up = 1.2};
}

static int te_chuck_share(double value) {
    return value >= 0 && value <= 1;
}

static int te_chuck_check(te_ctx *ctx, const te_chuck_settings *s) {
    if (s->window < 4 || s->window > TE_CHUCK_MAX_WINDOW || s->slow_interval < 1 ||
        !(s->lowest > 0) || !(s->lowest <= s->highest) || !isfinite(s->highest)) {
        te_fail(
            ctx, TE_ERR_VALUE,
            "chuck: window %lld must be 4 to %d, slow_interval %lld at least 1, lowest %g above "
            "0 and at most highest %g",
            (long long)s->window, (int)TE_CHUCK_MAX_WINDOW, (long long)s->slow_interval, s->lowest,
            s->highest);
        return 0;
    }
    if (!te_chuck_share(s->revert) || !te_chuck_share(s->loss_decay) ||
        !te_chuck_share(s->noise_decay) || !te_chuck_share(s->slow_decay)) {
        te_fail(ctx, TE_ERR_VALUE,
                "chuck: revert %g, loss_decay %g, noise_decay %g, slow_decay %g must be in 0..1",
                s->revert, s->loss_decay, s->noise_decay, s->slow_decay);
        return 0;
    }
    if (!isfinite(s->damp + s->push + s->loss_threshold + s->norm_threshold + s->still_threshold +
                  s->noise + s->freeze_norm + s->slow_margin + s->scale_down + s->scale_floor +
                  s->scale_up)) {
        te_fail(ctx, TE_ERR_VALUE, "chuck: a setting is not a finite number");
        return 0;
    }
    return 1;
}

static void te_chuck_start(te_chuck_memory *chuck, const te_chuck_settings *settings) {
    *chuck = (te_chuck_memory){.set = *settings, .losses.lambda = 1, .scale = 1};
}

/* Mean of `count` values from `start` places after the oldest. */
static double te_chuck_mean(const te_chuck_window *w, int64_t size, int64_t start, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += w->values[(w->next + size - w->count + start + i) % size];
    return sum / (double)count;
}

/* Takes a value in; once half a window is there, the trend is the change from the mean of its
 * oldest quarter to that of its newest, and the factor goes up or down with it. 1: has a trend. */
static int te_chuck_follow(te_chuck_follower *f, const te_chuck_settings *s, double value,
                           double threshold) {
    te_chuck_window *w = &f->window;
    w->values[w->next] = value;
    w->next = (w->next + 1) % s->window;
    if (w->count < s->window) w->count++;
    const int64_t quarter = w->count / 4;
    const int known = 2 * w->count >= s->window && quarter > 0;
    if (known) {
        const double old = te_chuck_mean(w, s->window, 0, quarter);
        const double recent = te_chuck_mean(w, s->window, w->count - quarter, quarter);
        f->trend = fabs(old) > s->eps ? (recent - old) / fabs(old) : 0;
        if (f->trend > threshold) f->lambda *= s->damp;
        if (f->trend < -threshold) f->lambda *= s->push;
    }
    f->lambda = 1 + s->revert * (f->lambda - 1);
    f->lambda = fmin(fmax(f->lambda, s->lowest), s->highest);
    return known;
}

/* Level 5: every slow_interval losses, has the slow mean come down? */
static void te_chuck_decide(te_chuck_memory *c) {
    const te_chuck_settings *s = &c->set;
    if (c->seen == s->slow_interval || c->slow_mean <= c->best - s->slow_margin * fabs(c->best)) {
        c->best = c->slow_mean;
        c->misses = 0;
        c->scale = fmin(1, c->scale * s->scale_up);
    } else if (++c->misses >= s->patience) {
        c->misses = 0;
        c->scale = fmax(s->scale_floor, c->scale * s->scale_down);
    }
}

/* Levels 1, 3 and 5 for the loss of one step. */
static void te_chuck_observe(te_chuck_memory *c, double loss) {
    const te_chuck_settings *s = &c->set;
    c->mean = c->seen ? s->loss_decay * c->mean + (1 - s->loss_decay) * loss : loss;
    c->slow_mean = c->seen ? s->slow_decay * c->slow_mean + (1 - s->slow_decay) * loss : loss;
    c->seen++;
    c->noise *= s->noise_decay;
    if (te_chuck_follow(&c->losses, s, c->mean, s->loss_threshold)) {
        c->still = fabs(c->losses.trend) < s->still_threshold ? c->still + 1 : 0;
        if (c->still >= s->still_steps) {
            c->noise = s->noise;
            c->still = 0;
        }
    }
    if (c->seen % s->slow_interval == 0) te_chuck_decide(c);
}

/* Levels 2 and 4 for the gradient of one parameter. 0: it is frozen. */
static int te_chuck_watch_norm(te_chuck_watch *w, const te_chuck_settings *s, double norm) {
    if (w->frozen) return 0;
    w->norm = norm;
    w->quiet = norm < s->freeze_norm ? w->quiet + 1 : 0;
    if (s->freeze_steps > 0 && w->quiet >= s->freeze_steps) w->frozen = 1;
    te_chuck_follow(&w->norms, s, norm, s->norm_threshold);
    return !w->frozen;
}

/* Adds uniform noise of at most `size` to every element. */
static void te_chuck_stir(te_tensor *param, double size) {
    for (int64_t i = 0; i < param->numel; i++)
        te_values(param)[i] += (te_float)(size * (2 * te_random_uniform(param->ctx) - 1));
}

/* Whether what was read from a checkpoint is something that a Chuck can hold: positions within the
 * window, numbers that are finite. */
static int te_chuck_follower_valid(const te_chuck_follower *f, const te_chuck_settings *s) {
    const te_chuck_window *w = &f->window;
    double sum = f->trend + f->lambda;
    for (int64_t i = 0; i < TE_CHUCK_MAX_WINDOW; i++) sum += w->values[i];
    return w->count >= 0 && w->count <= s->window && w->next >= 0 && w->next < s->window &&
           f->lambda >= 0 && isfinite(sum);
}

static int te_chuck_count_valid(int64_t count) {
    return count >= 0 && count <= INT64_C(1) << 53; /* as many as steps there can be */
}

static int te_chuck_watch_valid(const te_chuck_watch *w, const te_chuck_settings *s) {
    return te_chuck_follower_valid(&w->norms, s) && isfinite(w->norm) &&
           te_chuck_count_valid(w->quiet) && (w->frozen == 0 || w->frozen == 1);
}

static int te_chuck_memory_valid(const te_chuck_memory *c, const te_chuck_settings *s) {
    return te_chuck_follower_valid(&c->losses, s) && c->scale >= 0 &&
           isfinite(c->mean + c->slow_mean + c->best + c->noise + c->scale) &&
           te_chuck_count_valid(c->seen) && te_chuck_count_valid(c->still) &&
           te_chuck_count_valid(c->misses);
}
