// A compiled Stan model behind a C interface: data read once, batches of points, gradients,
// and densities with all their constants. Compiled together with the C++ code of the model,
// whose file is MODEL_FILE.

#include MODEL_FILE

#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <stan/io/array_var_context.hpp>

namespace {

struct Handle {
  stan::model::model_base *model;
  std::string names[4];
  ~Handle() { delete model; }
};

std::vector<std::string> split(const char *text) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string line; std::getline(stream, line);) parts.push_back(line);
  return parts;
}

std::string join(const std::vector<std::string> &parts) {
  std::string text;
  for (const auto &part : parts) text += part + "\n";
  return text;
}

std::vector<std::vector<size_t>> read_dims(const long long *dims, size_t n) {
  std::vector<std::vector<size_t>> all;
  for (size_t i = 0; i < n; ++i) {
    const long long count = *dims++;
    all.emplace_back(dims, dims + count);
    dims += count;
  }
  return all;
}

void say(const std::string &message, char *error, int size) {
  std::strncpy(error, message.c_str(), size - 1);
  error[size - 1] = '\0';
}

}  // namespace

extern "C" {

// Dimensions are, for each variable, their number and then themselves.
void *open_model(const char *real_names, const double *reals, long long n_reals,
                 const long long *real_dims, const char *int_names, const int *ints,
                 long long n_ints, const long long *int_dims, unsigned int seed, char *error,
                 int error_size) {
  std::ostringstream messages;
  try {
    const auto names_r = split(real_names), names_i = split(int_names);
    stan::io::array_var_context data(names_r, std::vector<double>(reals, reals + n_reals),
                                     read_dims(real_dims, names_r.size()), names_i,
                                     std::vector<int>(ints, ints + n_ints),
                                     read_dims(int_dims, names_i.size()));
    auto *handle = new Handle{&new_model(data, seed, &messages), {}};
    std::vector<std::string> names;
    handle->model->constrained_param_names(names, false, false);
    handle->names[0] = join(names);
    names.clear();
    handle->model->constrained_param_names(names, true, false);
    handle->names[1] = join(names);
    names.clear();
    handle->model->constrained_param_names(names, true, true);
    handle->names[2] = join(names);
    names.clear();
    handle->model->unconstrained_param_names(names, false, false);
    handle->names[3] = join(names);
    return handle;
  } catch (const std::exception &failure) {
    say(messages.str() + failure.what(), error, error_size);
    return nullptr;
  }
}

void close_model(void *handle) { delete static_cast<Handle *>(handle); }

// Names, one a line: 0 of parameters, 1 and of transformed parameters, 2 and of generated
// quantities, 3 of unconstrained coordinates.
const char *names(void *handle, int which) {
  return static_cast<Handle *>(handle)->names[which].c_str();
}

// Log densities over unconstrained space of n points, and their gradients unless that is null.
// A point that the model rejects, or where its density is not a number, has density zero.
int log_density(void *handle, long long n, long long d, const double *points, double *values,
                double *gradients, char *error, int error_size) {
  stan::math::ChainableStack stack;
  const auto *model = static_cast<Handle *>(handle)->model;
  std::ostringstream messages;
  for (long long row = 0; row < n; ++row) {
    double value = -std::numeric_limits<double>::infinity();
    double *gradient = gradients == nullptr ? nullptr : gradients + row * d;
    if (gradient != nullptr) std::fill(gradient, gradient + d, 0.0);
    try {
      if (gradient == nullptr) {
        Eigen::VectorXd y = Eigen::Map<const Eigen::VectorXd>(points + row * d, d);
        value = model->log_prob_jacobian(y, &messages);
      } else {
        stan::math::nested_rev_autodiff nested;
        Eigen::Matrix<stan::math::var, -1, 1> y(d);
        for (long long i = 0; i < d; ++i) y(i) = points[row * d + i];
        stan::math::var density = model->log_prob_jacobian(y, &messages);
        value = density.val();
        if (std::isfinite(value)) {
          stan::math::grad(density.vi_);
          for (long long i = 0; i < d; ++i) gradient[i] = y(i).adj();
        }
      }
    } catch (const std::domain_error &) {
      // Stan's own word for a rejected point.
    } catch (const std::exception &failure) {
      say(failure.what(), error, error_size);
      return 1;
    }
    values[row] = std::isnan(value) ? -std::numeric_limits<double>::infinity() : value;
  }
  return 0;
}

// Values in the order of names, (n, m), of n points of unconstrained space; which as above.
int constrain(void *handle, long long n, long long d, const double *points, int which,
              long long m, double *values, unsigned int seed, char *error, int error_size) {
  stan::math::ChainableStack stack;
  const auto *model = static_cast<Handle *>(handle)->model;
  std::ostringstream messages;
  stan::rng_t random(seed);
  try {
    for (long long row = 0; row < n; ++row) {
      Eigen::VectorXd y = Eigen::Map<const Eigen::VectorXd>(points + row * d, d);
      Eigen::VectorXd x;
      model->write_array(random, y, x, which > 0, which > 1, &messages);
      if (x.size() != m) throw std::logic_error("unexpected number of values");
      std::copy(x.data(), x.data() + m, values + row * m);
    }
    return 0;
  } catch (const std::exception &failure) {
    say(failure.what(), error, error_size);
    return 1;
  }
}

}  // extern "C"
