// Environments in Python, called from C++: acts, steps each, lays what they return into the blocks.
//
// What an environment does costs what it costs; between two calls of `step` nothing of Python runs.
// Whatever is not as Gymnasium says (or needs more than a copy) is read in Python, by `read`.
#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>
#include <numpy/arrayscalars.h>

#include "bindings.hpp"
#include "moments.hpp"

using namespace nb::literals;

namespace clipper_python {

namespace {

// What `step` returned, without the observation.
struct Result {
  double reward = 0;
  bool terminated = false, truncated = false;
  nb::object info;
};

// Numbers of an action space's Box, each [A]; as `ActionLayout.box_scale`.
struct BoxScale {
  bool plain = true;
  std::vector<double> low, high, scale, centre;
};

bool read_flag(PyObject* flag, bool* to) {
  const bool is_true = flag == Py_True || flag == PyArrayScalar_True;
  if (!is_true && flag != Py_False && flag != PyArrayScalar_False) return false;
  *to = is_true;
  return true;
}

bool read_number(PyObject* number, double* to) {
  if (!PyFloat_Check(number) && !PyLong_CheckExact(number) && !PyArray_IsScalar(number, Floating))
    return false;
  *to = PyFloat_AsDouble(number);
  if (*to != -1.0 || PyErr_Occurred() == nullptr) return true;
  PyErr_Clear();  // a whole number too large for a float: Python says so again
  return false;
}

template <typename T>
void copy_row(const char* from, int64_t step, int64_t size, float* to) {
  for (int64_t k = 0; k < size; ++k, from += step)
    to[k] = static_cast<float>(*reinterpret_cast<const T*>(from));
}

class GymLoop {
 public:
  GymLoop(nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu> now, Out<double> returns,
          Out<int64_t> lengths, nb::object obs_type, nb::object choices,
          std::optional<std::tuple<bool, std::array<std::vector<double>, 4>>> scale,
          nb::object action_type, std::vector<int64_t> action_shape)
      : now_(now),
        returns_(returns),
        lengths_(lengths),
        obs_type_(obs_type),
        choices_(choices),
        action_type_(action_type) {
    num_envs_ = static_cast<int64_t>(now.shape(0));
    obs_size_ = static_cast<int64_t>(now.shape(1));
    require(returns.size() == now.shape(0) && lengths.size() == now.shape(0),
            "the states must be [N]");
    is_double_obs_ = is_type(obs_type_, NPY_DOUBLE);
    require(obs_type_.is_none() || is_double_obs_ || is_type(obs_type_, NPY_FLOAT),
            "observations must be float32 or float64");
    require(choices_.is_none() || PyList_CheckExact(choices_.ptr()), "choices must be a list");
    if (!scale) return;
    is_double_action_ = is_type(action_type_, NPY_DOUBLE);
    require(is_double_action_ || is_type(action_type_, NPY_FLOAT),
            "actions must be float32 or float64");
    const auto& [plain, columns] = *scale;
    box_ = BoxScale{plain, columns[0], columns[1], columns[2], columns[3]};
    int64_t size = 1;
    for (int64_t length : action_shape) size *= length;
    for (const auto& column : columns)
      require(static_cast<int64_t>(column.size()) == size, "the scale must be [A]");
    shape_.assign(action_shape.begin(), action_shape.end());
  }

  // The loop of `ReplayableEnvs.collect`. `read(i, found)` returns (reward, terminated, truncated,
  // info) and fills the environment's row; `end(t, i, terminated, info)` begins the next episode. If
  // there is a `drop`, a step that is not finite counts for nothing, and `drop(t, i, reward)` plays
  // its row in the next episode.
  void collect(nb::object act, nb::list envs, In<int64_t> limits, nb::object to_env,
               nb::object read, nb::object end, Out<float> obs,
               nb::ndarray<nb::numpy, nb::c_contig> actions, Out<float> rewards,
               Out<bool> terminated, Out<bool> truncated, Out<int64_t> position, nb::object drop) {
    require(position.size() == 2, "the position must be step and environment");
    require(obs.ndim() == 3 && actions.ndim() == 3, "blocks are [T, N, ...]");
    const auto num_steps = static_cast<int64_t>(obs.shape(0));
    const auto rows = static_cast<size_t>(num_steps * num_envs_);
    const auto width = static_cast<size_t>(obs_size_);
    require(obs.size() == rows * width && rewards.size() == rows && terminated.size() == rows &&
                truncated.size() == rows && actions.shape(0) * actions.shape(1) == rows,
            "columns must be [T, N]");
    require(envs.size() == now_.shape(0) && limits.size() == now_.shape(0),
            "environments and limits must be [N]");
    look_at(actions);
    Stepper* stepper = nullptr;
    nb::try_cast(act, stepper);
    require(stepper == nullptr || (stepper->num_envs() == num_envs_ && stepper->obs() == obs.data()),
            "the policy must have been made for these environments");
    stepping = -1;
    for (int64_t t = 0; t < num_steps; ++t) {
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      const int64_t row = t * num_envs_;
      memcpy(obs.data() + row * obs_size_, now_.data(), sizeof(float) * now_.size());
      if (stepper != nullptr) stepper->step(t);
      else act(t);
      position.data()[0] = t;
      const nb::object made = made_in_python(to_env, actions, t);
      for (int64_t i = 0; i < num_envs_; ++i) {
        const int64_t at = row + i;
        stepping = position.data()[1] = i;
        const Result found = step(i, envs, made, at, read);
        if (!drop.is_none() && !is_finite(i, found.reward)) {
          stepping = -1;
          drop(t, i, found.reward);
          continue;
        }
        rewards.data()[at] = static_cast<float>(found.reward);
        returns_.data()[i] += found.reward;
        const int64_t length = ++lengths_.data()[i], limit = limits.data()[i];
        const bool is_cut = found.truncated || (limit > 0 && length >= limit);
        stepping = -1;
        if (!found.terminated && !is_cut) continue;
        terminated.data()[at] = found.terminated;
        truncated.data()[at] = is_cut;
        end(t, i, found.terminated, found.info);
      }
    }
  }

  int64_t stepping = -1;  // the environment that is in `step`, or whose answer is read; else -1

 private:
  static bool is_type(const nb::object& type, int number) {
    return PyArray_DescrCheck(type.ptr()) &&
           reinterpret_cast<PyArray_Descr*>(type.ptr())->type_num == number;
  }

  void look_at(const nb::ndarray<nb::numpy, nb::c_contig>& actions) {
    floats_ = nullptr;
    ints_ = nullptr;
    if (actions.dtype() == nb::dtype<float>()) floats_ = static_cast<const float*>(actions.data());
    if (actions.dtype() == nb::dtype<int64_t>()) ints_ = static_cast<const int64_t*>(actions.data());
    require((choices_.is_none() || ints_ != nullptr) && (!box_ || floats_ != nullptr),
            "actions must be float32 for Box and int64 for choices");
    action_size_ = static_cast<int64_t>(actions.shape(2));
    require(!box_ || static_cast<size_t>(action_size_) == box_->low.size(), "actions must be [A]");
    require(choices_.is_none() || action_size_ == 1, "choices must be single");
  }

  // The actions of a vector step of spaces that are not made here, as a list; else None.
  nb::object made_in_python(const nb::object& to_env,
                            const nb::ndarray<nb::numpy, nb::c_contig>& actions, int64_t t) const {
    if (!choices_.is_none() || box_) return nb::none();
    nb::object block = nb::cast(actions);
    nb::object made = to_env(block[t]);
    require(PyList_CheckExact(made.ptr()) &&
                PyList_GET_SIZE(made.ptr()) == static_cast<Py_ssize_t>(num_envs_),
            "to_env must return a list [N]");
    return made;
  }

  nb::object action(int64_t i, const nb::object& made, int64_t at) const {
    if (box_) return box_action(floats_ + at * action_size_);
    PyObject* const list = choices_.is_none() ? made.ptr() : choices_.ptr();
    const int64_t index = choices_.is_none() ? i : ints_[at];
    require(index >= 0 && index < static_cast<int64_t>(PyList_GET_SIZE(list)),
            "actions must be of the space");
    return nb::borrow(PyList_GET_ITEM(list, static_cast<Py_ssize_t>(index)));
  }

  // As `ActionLayout.to_env`: scaled to the space, clipped at its bounds, an array of its own.
  nb::object box_action(const float* sampled) const {
    auto* const type = reinterpret_cast<PyArray_Descr*>(action_type_.ptr());
    Py_INCREF(type);
    PyObject* const made =
        PyArray_NewFromDescr(&PyArray_Type, type, static_cast<int>(shape_.size()), shape_.data(),
                             nullptr, nullptr, 0, nullptr);
    if (made == nullptr) throw nb::python_error();
    void* const data = PyArray_DATA(reinterpret_cast<PyArrayObject*>(made));
    for (size_t k = 0; k < box_->low.size(); ++k) {
      double x = sampled[k];
      if (!box_->plain) x = x * box_->scale[k] + box_->centre[k];
      x = x < box_->low[k] ? box_->low[k] : x;  // NaN stays NaN, as in numpy
      x = x > box_->high[k] ? box_->high[k] : x;
      if (is_double_action_) static_cast<double*>(data)[k] = x;
      else static_cast<float*>(data)[k] = static_cast<float>(x);
    }
    return nb::steal(made);
  }

  Result step(int64_t i, const nb::list& envs, const nb::object& made, int64_t at,
              const nb::object& read) {
    const nb::object given = action(i, made, at);
    // looked up at every step: an environment may replace its own
    PyObject* const env = PyList_GET_ITEM(envs.ptr(), static_cast<Py_ssize_t>(i));
    PyObject* arguments[] = {nullptr, env, given.ptr()};
    const nb::object found = nb::steal(PyObject_VectorcallMethod(
        step_.ptr(), arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
    if (!found.is_valid()) throw nb::python_error();
    Result result;
    if (is_plain(i, found.ptr(), &result)) return result;
    nb::object answer = read(i, found);
    result.reward = nb::cast<double>(answer[0]);
    result.terminated = nb::cast<bool>(answer[1]);
    result.truncated = nb::cast<bool>(answer[2]);
    result.info = answer[3];
    return result;
  }

  // Whether what a step gave is finite, in the type that the blocks have.
  bool is_finite(int64_t i, double given) const {
    const auto reward = static_cast<float>(given);
    return clipper::is_finite(&reward, 1) &&
           clipper::is_finite(now_.data() + i * obs_size_, obs_size_);
  }

  // Reads what keeps Gymnasium's promise and needs a copy alone; false leaves it to Python.
  bool is_plain(int64_t i, PyObject* found, Result* to) {
    if (!PyTuple_CheckExact(found) || PyTuple_GET_SIZE(found) != 5) return false;
    if (!read_number(PyTuple_GET_ITEM(found, 1), &to->reward) ||
        !read_flag(PyTuple_GET_ITEM(found, 2), &to->terminated) ||
        !read_flag(PyTuple_GET_ITEM(found, 3), &to->truncated))
      return false;
    PyObject* const seen = PyTuple_GET_ITEM(found, 0);
    if (!PyArray_CheckExact(seen)) return false;
    auto* const array = reinterpret_cast<PyArrayObject*>(seen);
    // the very type of the space, so it has the machine's byte order
    if (reinterpret_cast<PyObject*>(PyArray_DESCR(array)) != obs_type_.ptr() ||
        PyArray_NDIM(array) != 1 || PyArray_DIM(array, 0) != obs_size_ || !PyArray_ISALIGNED(array))
      return false;
    const auto* const from = static_cast<const char*>(PyArray_DATA(array));
    float* const row = now_.data() + i * obs_size_;
    if (is_double_obs_) copy_row<double>(from, PyArray_STRIDE(array, 0), obs_size_, row);
    else copy_row<float>(from, PyArray_STRIDE(array, 0), obs_size_, row);
    to->info = nb::borrow(PyTuple_GET_ITEM(found, 4));
    return true;
  }

  nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu> now_;
  Out<double> returns_;
  Out<int64_t> lengths_;
  nb::object obs_type_, choices_, action_type_;
  nb::object step_ = nb::steal(PyUnicode_InternFromString("step"));
  bool is_double_obs_ = false, is_double_action_ = false;
  std::optional<BoxScale> box_;
  std::vector<npy_intp> shape_;
  int64_t num_envs_ = 0, obs_size_ = 0, action_size_ = 0;
  const float* floats_ = nullptr;
  const int64_t* ints_ = nullptr;
};

}  // namespace

void bind_gym(nb::module_& m) {
  if (PyArray_ImportNumPyAPI() < 0) throw nb::python_error();
  nb::class_<GymLoop>(m, "GymLoop")
      .def(nb::init<nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>, Out<double>,
                    Out<int64_t>, nb::object, nb::object,
                    std::optional<std::tuple<bool, std::array<std::vector<double>, 4>>>, nb::object,
                    std::vector<int64_t>>(),
           nb::kw_only(), "obs"_a, "returns"_a, "lengths"_a, "obs_type"_a.none(),
           "choices"_a.none(), "scale"_a.none(), "action_type"_a.none(), "action_shape"_a)
      .def("collect", &GymLoop::collect, "act"_a, "envs"_a, "limits"_a, "to_env"_a, "read"_a,
           "end"_a, "obs"_a, "actions"_a, "rewards"_a, "terminated"_a, "truncated"_a, "position"_a,
           "drop"_a.none())
      .def_ro("stepping", &GymLoop::stepping);
}

}  // namespace clipper_python
