# What `cmake --install` puts where: a tree that may be moved, but whose programs use the system's libraries.
# deploy/bundle adds these in lib/accrue.
set(programs accrued accrue-worker accrue)
set_target_properties(${programs} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/accrue")
foreach(program IN LISTS programs)
  # RUNPATH, the linkers' default, does not hold for the libraries of libraries; RPATH does.
  target_link_options(${program} PRIVATE -Wl,--disable-new-dtags)
endforeach()
install(TARGETS ${programs} RUNTIME DESTINATION bin)
if(ACCRUE_CUDA)
  install(TARGETS accrue_cuda LIBRARY DESTINATION lib/accrue)
endif()
install(FILES deploy/package/README.txt deploy/package/accrued.yaml deploy/package/accrue-worker.yaml
        DESTINATION share/accrue)
install(FILES deploy/systemd/accrued.service deploy/systemd/accrue-worker.service deploy/systemd/accrue.conf
        DESTINATION share/accrue/systemd)
install(DIRECTORY docs/ DESTINATION share/accrue/docs)
