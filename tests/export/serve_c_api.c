/* Runs a SavedModel through TensorFlow's C API alone, as the model server's C++ does: no Python, no Keras.

     serve_c_api MODEL INPUT OUTPUT float32 FILE N H W C    pixels, float32 in the order of the shape
     serve_c_api MODEL INPUT OUTPUT string FILE             the content of one file, a batch of one

   INPUT and OUTPUT are names of tensors, such as serving_default_image:0. Prints the output's shape in one line and
   its float32 values in the next; an error goes to standard error, and the exit code is 1. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

static void stop(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(const char *what, TF_Status *status) {
  if (TF_GetCode(status) != TF_OK) stop(what, TF_Message(status));
}

static char *read_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  char *content;
  if (file == NULL) stop(path, "cannot be opened");
  fseek(file, 0, SEEK_END);
  *length = (size_t)ftell(file);
  rewind(file);
  content = malloc(*length + 1);
  if (content == NULL || fread(content, 1, *length, file) != *length) stop(path, "cannot be read");
  fclose(file);
  return content;
}

static TF_Output tensor_named(TF_Graph *graph, const char *name) {
  char operation[256];
  TF_Output found = {NULL, 0};
  const char *colon = strrchr(name, ':');
  if (colon == NULL || (size_t)(colon - name) >= sizeof operation) stop(name, "no name of a tensor");
  memcpy(operation, name, (size_t)(colon - name));
  operation[colon - name] = '\0';
  found.oper = TF_GraphOperationByName(graph, operation);
  found.index = atoi(colon + 1);
  if (found.oper == NULL) stop(name, "not in the graph");
  return found;
}

static TF_Tensor *pixels(const char *path, int rank, char **sizes) {
  int64_t shape[8];
  size_t length, expected = sizeof(float);
  char *content = read_file(path, &length);
  TF_Tensor *tensor;
  int i;
  if (rank > 8) stop("shape", "too many dimensions");
  for (i = 0; i < rank; ++i) {
    shape[i] = atoll(sizes[i]);
    expected *= (size_t)shape[i];
  }
  if (length != expected) stop(path, "its length does not fit the shape");
  tensor = TF_AllocateTensor(TF_FLOAT, shape, rank, length);
  memcpy(TF_TensorData(tensor), content, length);
  free(content);
  return tensor;
}

static TF_Tensor *bytes(const char *path) {
  const int64_t shape[] = {1};
  size_t length;
  char *content = read_file(path, &length);
  TF_Tensor *tensor = TF_AllocateTensor(TF_STRING, shape, 1, sizeof(TF_TString));
  TF_TString *text = TF_TensorData(tensor);
  TF_TString_Init(text);
  TF_TString_Copy(text, content, length);
  free(content);
  return tensor;
}

static void print(const TF_Tensor *tensor) {
  const float *values = TF_TensorData(tensor);
  int64_t count = TF_TensorElementCount(tensor), i;
  if (TF_TensorType(tensor) != TF_FLOAT) stop("output", "not of float32");
  for (i = 0; i < TF_NumDims(tensor); ++i) printf("%lld ", (long long)TF_Dim(tensor, (int)i));
  printf("\n");
  for (i = 0; i < count; ++i) printf("%.9g ", values[i]);
  printf("\n");
}

int main(int count, char **arguments) {
  const char *tags[] = {"serve"};
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Session *session;
  TF_Output input, output;
  TF_Tensor *given, *answer = NULL;
  if (count < 6) stop(arguments[0], "expected MODEL INPUT OUTPUT TYPE FILE [SIZES]");
  session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph, NULL, status);
  check("load", status);
  input = tensor_named(graph, arguments[2]);
  output = tensor_named(graph, arguments[3]);
  given = strcmp(arguments[4], "string") == 0 ? bytes(arguments[5]) : pixels(arguments[5], count - 6, arguments + 6);
  TF_SessionRun(session, NULL, &input, &given, 1, &output, &answer, 1, NULL, 0, NULL, status);
  check("run", status);
  print(answer);
  TF_DeleteTensor(given);
  TF_DeleteTensor(answer);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
