// A list that does not change, and that copies share: each of n members is told of all n.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

namespace accrue::core {

template <typename T>
class SharedList {
 public:
  using value_type = T;
  using const_iterator = typename std::vector<T>::const_iterator;
  using iterator = const_iterator;

  SharedList() : SharedList(std::vector<T>()) {}
  SharedList(std::vector<T> list) : list_(std::make_shared<const std::vector<T>>(std::move(list))) {}  // NOLINT
  SharedList(std::initializer_list<T> list) : SharedList(std::vector<T>(list)) {}
  operator const std::vector<T>&() const { return *list_; }  // NOLINT
  const_iterator begin() const { return list_->begin(); }
  const_iterator end() const { return list_->end(); }
  size_t size() const { return list_->size(); }
  bool empty() const { return list_->empty(); }
  const T& operator[](size_t index) const { return (*list_)[index]; }
  friend bool operator==(const SharedList& a, const SharedList& b) { return *a.list_ == *b.list_; }
  friend bool operator==(const SharedList& a, const std::vector<T>& b) { return *a.list_ == b; }

 private:
  std::shared_ptr<const std::vector<T>> list_;
};

}  // namespace accrue::core
