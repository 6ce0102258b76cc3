/* telemetry.h - JSON lines on the console about what the model does, only while switched on. */
#ifndef TELEMETRY_H
#define TELEMETRY_H

#include <stdbool.h>

#include "model/model.h"

void telemetry_switch(bool on);
void telemetry_infer(const char *label, const struct infer_result *result);
void telemetry_step(const char *label, const struct step_result *result);
void telemetry_generate(uint32_t tokens, uint32_t us);
void telemetry_model(const tr_model *model, const char *slot);

#endif
